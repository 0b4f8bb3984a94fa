"""The README against the program: its feature table, commands, topics and required fields."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from app.cli import app
from app.domain.fields import FIELDS
from app.topics import topics
from models.packs import __path__ as _packs
from ops.readme import BEGIN, END, README, ReadmeError, features_block, render_features, replace_features
from tables.catalog import CATALOG
