"""Features and the state behind them: declarations, catalog, kernel, profiles, changelog."""
