"""The words of the models' reasons, in English and Portuguese: of logs, flags, aggregates, and derived features."""

from __future__ import annotations

__all__ = ["AGGREGATES", "BY_KEYS", "DERIVED", "FLAGS", "LOGS", "LOG_CODES", "OF_KEYS", "Texts"]

Texts = tuple[str, str]
"""In English and Portuguese."""

LOGS: dict[str | None, Texts] = {
    "received": ("payments to the receiver", "pagamentos ao recebedor"),
    "sent": ("payments by the payer", "pagamentos do pagador"),
    "credited": ("credits to the payer", "créditos ao pagador"),
    None: ("", ""),
}
"""The events of each log."""

OF_KEYS: dict[str, Texts] = {"receiver": ("of the receiver", "do recebedor"), "payer": ("of the payer", "do pagador")}
"""Whose a thing is."""

BY_KEYS: dict[str, Texts] = {
    "receiver": ("by the receiver", "pelo recebedor"),
    "payer": ("by the payer", "pelo pagador"),
}
"""By whom a thing is done."""

FLAGS: dict[str, Texts] = {
    "received NEW_COUNTERPARTY": ("by new payers", "de pagadores novos"),
    "sent NEW_COUNTERPARTY": ("to new receivers", "a recebedores novos"),
    "NIGHT": ("by night", "à noite"),
    "ROUND": ("of round amounts", "de valor redondo"),
    "LEGAL_PAYER": ("by companies", "de empresas"),
    "STATIC_QR": ("by static QR code", "por QR Code estático"),
    "NEAR_LIMIT": ("close to the limit", "próximos do limite"),
    "RECEIVER_MARKED": ("to receivers with confirmed fraud", "a recebedores com fraude confirmada"),
}
"""Events that carry a flag; with their log where the phrase depends on it."""

AGGREGATES: dict[str, tuple[str, str, str]] = {
    "Count": ("{log}", "number of {events}", "quantidade de {events}"),
    "Sum": ("{log}_AMOUNT", "total of {events}", "valor total de {events}"),
    "Mean": ("{log}_MEAN", "mean amount of {events}", "valor médio de {events}"),
    "Max": ("{log}_LARGEST", "largest of the {events}", "maior valor de {events}"),
    "Std": ("{log}_SPREAD", "spread of the amounts of {events}", "variação dos valores de {events}"),
    "FlagCount": ("{log}_{FLAG}", "number of {events} {flag}", "quantidade de {events} {flag}"),
    "Share": ("{log}_{FLAG}_SHARE", "share of {events} {flag}", "parcela de {events} {flag}"),
    "FlagRun": ("{log}_{FLAG}_IN_A_ROW", "last {events} in a row {flag}", "últimos {events} seguidos {flag}"),
    "SinceLast": ("SINCE_LAST_{log}", "time since the last of the {events}", "tempo desde o último dos {events}"),
    "Seen": ("{log}_EVER", "number of {events} ever seen", "total de {events} já vistos"),
    "Rising": ("{log}_RISING", "amounts rising in a row in {events}", "valores em alta seguida em {events}"),
    "Growth": (
        "{log}_GROWTH",
        "last amount against those before it in {events}",
        "último valor comparado aos anteriores em {events}",
    ),
    "Repeats": (
        "{log}_SAME_AMOUNT",
        "number of {events} of exactly this amount",
        "quantidade de {events} com exatamente este valor",
    ),
    "Distinct received": ("PAYERS", "different payers who paid the receiver", "pagadores diferentes do recebedor"),
    "Distinct sent": (
        "RECEIVERS",
        "different receivers paid by the payer",
        "recebedores diferentes pagos pelo pagador",
    ),
    "Distinct credited": ("CREDITORS", "different senders of credits to the payer", "origens diferentes dos créditos"),
    "FirstTime received": ("NEW_PAYER", "first payment by this payer", "primeiro pagamento deste pagador"),
    "FirstTime sent": ("NEW_RECEIVER", "first payment to this receiver", "primeiro pagamento a este recebedor"),
    "SincePair received": (
        "SINCE_SAME_PAYER",
        "time since this payer last paid the receiver",
        "tempo desde o último pagamento deste pagador",
    ),
    "SincePair sent": (
        "SINCE_SAME_RECEIVER",
        "time since the payer last paid this receiver",
        "tempo desde o último pagamento a este recebedor",
    ),
    "MetAs": ("PAID_BY_RECEIVER", "the receiver has paid the payer before", "o recebedor já pagou ao pagador"),
    "NewDevice": ("NEW_DEVICE", "device not used before {by}", "dispositivo nunca usado antes {by}"),
    "DistinctDevices": ("DEVICES", "devices used {by}", "dispositivos usados {by}"),
    "SameDevice": (
        "PAYERS_OF_DEVICE",
        "payers who paid the receiver from this same device",
        "pagadores que pagaram ao recebedor com este mesmo dispositivo",
    ),
    "Age": ("KNOWN_FOR", "time since the first record {of}", "tempo desde o primeiro registro {of}"),
    "Marks": ("CONFIRMED_FRAUDS", "confirmed frauds {of}", "fraudes confirmadas {of}"),
    "Marks MULE_ACCOUNT": (
        "CONFIRMED_MULE",
        "confirmations {of} as a mule",
        "confirmações {of} como conta laranja",
    ),
    "Marks SCAMMER_ACCOUNT": (
        "CONFIRMED_SCAMMER",
        "confirmations {of} as a scammer",
        "confirmações {of} como golpista",
    ),
    "SinceMark": (
        "SINCE_CONFIRMED_FRAUD",
        "time since the last confirmed fraud {of}",
        "tempo desde a última fraude confirmada {of}",
    ),
    "PeriodSum night_natural": (
        "NIGHT_AMOUNT_TO_PEOPLE",
        "total sent from person to person this night",
        "valor total enviado nesta noite entre pessoas físicas",
    ),
    "PeriodSum unregistered_device_day": (
        "UNREGISTERED_DEVICE_AMOUNT",
        "total sent today from unregistered devices",
        "valor total enviado hoje por dispositivos não cadastrados",
    ),
    "PeriodSum cash_day": (
        "CASH_AMOUNT_BY_DAY",
        "total of Pix Saque and Troco by day",
        "valor total de Pix Saque e Troco durante o dia",
    ),
    "PeriodSum cash_night": (
        "CASH_AMOUNT_BY_NIGHT",
        "total of Pix Saque and Troco this night",
        "valor total de Pix Saque e Troco nesta noite",
    ),
}
"""By class, and log or parameter where the phrase depends on it: part of the code, and phrases.

{events} are those of the log; {flag}, {of} and {by} are as above.
"""

LOG_CODES = {"received": "PAYMENTS", "sent": "PAYMENTS", "credited": "CREDITS", None: ""}
"""The events of each log in codes."""

DERIVED: dict[str, Texts] = {
    "amount_to_payer_mean_30d": ("amount against the payer's mean", "valor comparado à média do pagador"),
    "amount_to_payer_zscore_30d": (
        "amount's distance from the payer's mean",
        "distância do valor em relação à média do pagador",
    ),
    "amount_to_payer_max_30d": ("amount against the payer's largest", "valor comparado ao maior do pagador"),
    "amount_to_receiver_mean_30d": ("amount against the receiver's mean", "valor comparado à média do recebedor"),
    "amount_to_receiver_max_30d": ("amount against the receiver's largest", "valor comparado ao maior do recebedor"),
    "amount_to_first_payee": (
        "amount to a new receiver against the payer's mean",
        "valor a um recebedor novo comparado à média do pagador",
    ),
    "pass_through_10min": ("money sent against money just received", "valor enviado comparado ao recém-recebido"),
    "pass_through_1h": ("money sent against money just received", "valor enviado comparado ao recém-recebido"),
    "drained_1h": ("share of the payer's balance that leaves", "parcela do saldo do pagador que sai"),
    "payer_sent_velocity_1h": ("pace of payments by the payer", "ritmo de pagamentos do pagador"),
    "payer_sent_velocity_24h": ("pace of payments by the payer", "ritmo de pagamentos do pagador"),
    "receiver_received_velocity_1h": ("pace of payments to the receiver", "ritmo de pagamentos ao recebedor"),
    "receiver_received_velocity_24h": ("pace of payments to the receiver", "ritmo de pagamentos ao recebedor"),
    "payer_sent_surge_24h": ("money sent against the payer's usual", "valor enviado comparado ao habitual do pagador"),
    "payer_reactivated": ("payments after a month of silence", "pagamentos após um mês sem atividade"),
    "payer_per_receiver_24h": ("payments by the payer for each receiver", "pagamentos do pagador por recebedor"),
    "amount_log": ("amount", "valor do pagamento"),
    "share_of_limit": ("amount as a share of the payer's limit", "valor como parcela do limite do pagador"),
    "share_of_balance": ("amount as a share of the payer's balance", "valor como parcela do saldo do pagador"),
    "limit_raised_ms": ("time since the payer's limit was raised", "tempo desde o aumento do limite do pagador"),
    "round_50": ("amount is a multiple of R$ 50", "valor múltiplo de R$ 50"),
    "round_100": ("amount is a multiple of R$ 100", "valor múltiplo de R$ 100"),
    "round_1000": ("amount is a multiple of R$ 1,000", "valor múltiplo de R$ 1.000"),
    "initiation_manu": ("account typed in by hand, no key", "dados da conta digitados, sem chave"),
    "initiation_dict": ("paid by Pix key", "pago por chave Pix"),
    "initiation_qrdn": ("paid by dynamic QR code", "pago por QR Code dinâmico"),
    "initiation_qres": ("paid by static QR code", "pago por QR Code estático"),
    "cash": ("Pix Saque or Pix Troco", "Pix Saque ou Pix Troco"),
    "random_key": ("the key is a random one", "a chave é aleatória"),
    "payer_legal": ("the payer is a company", "o pagador é uma empresa"),
    "receiver_legal": ("the receiver is a company", "o recebedor é uma empresa"),
    "same_ispb": ("both accounts are at one bank", "as duas contas são da mesma instituição"),
    "same_owner": ("both accounts have one owner", "as duas contas são do mesmo titular"),
    "text_length": ("length of the message to the receiver", "tamanho da mensagem ao recebedor"),
    "hour_of_day_sin": ("time of day, between morning and evening", "horário, entre a manhã e o fim do dia"),
    "hour_of_day_cos": ("time of day, between midnight and noon", "horário, entre a meia-noite e o meio-dia"),
    "night": ("paid by night, 20:00 to 06:00", "pago à noite, das 20h às 6h"),
    "weekday_number": ("day of the week", "dia da semana"),
    "month_day": ("day of the month", "dia do mês"),
    "dict_key_changed_hands": ("the key has changed hands", "a chave mudou de dono"),
    "dict_key_age_ms": ("age of the receiver's key", "idade da chave do recebedor"),
    "dict_key_owned_ms": ("time since the receiver has the key", "tempo de posse da chave pelo recebedor"),
    "dict_claim_age_ms": ("age of an open claim to the key", "idade da reivindicação aberta da chave"),
    "dict_account_age_ms": ("age of the receiver's account", "idade da conta do recebedor"),
    "dict_watermark_age_ms": ("age of the key's statistics", "idade das estatísticas da chave"),
    "payer_account_age_ms": ("age of the payer's account", "idade da conta do pagador"),
    "receiver_key_settlements_d90": ("payments to the key in 90 days", "pagamentos à chave em 90 dias"),
    "receiver_person_settlements_d90": (
        "payments to the receiver at all banks in 90 days",
        "pagamentos ao recebedor em todas as instituições em 90 dias",
    ),
    "receiver_person_mule_accounts_d90": (
        "reports of the receiver as a mule in 90 days",
        "registros do recebedor como conta laranja em 90 dias",
    ),
    "receiver_person_mule_accounts_m60": (
        "reports of the receiver as a mule in 5 years",
        "registros do recebedor como conta laranja em 5 anos",
    ),
    "receiver_person_scammer_accounts_m60": (
        "reports of the receiver as a scammer in 5 years",
        "registros do recebedor como golpista em 5 anos",
    ),
    "receiver_person_application_frauds_m60": (
        "accounts that the receiver opened by fraud in 5 years",
        "contas abertas com fraude pelo recebedor em 5 anos",
    ),
    "receiver_key_mule_accounts_m12": (
        "reports of the key as a mule's in a year",
        "registros da chave como laranja em 1 ano",
    ),
    "receiver_key_scammer_accounts_m12": (
        "reports of the key as a scammer's in a year",
        "registros da chave como de golpista em 1 ano",
    ),
    "receiver_person_fraud_reporters_m12": (
        "banks that reported the receiver in a year",
        "instituições que denunciaram o recebedor em 1 ano",
    ),
    "receiver_person_rejected_reports_m12": (
        "reports of the receiver found wrong in a year",
        "denúncias do recebedor rejeitadas em 1 ano",
    ),
    "receiver_key_open_reports": ("open reports of the key", "denúncias da chave em análise"),
    "receiver_person_open_reports": ("open reports of the receiver", "denúncias do recebedor em análise"),
    "receiver_person_accounts": ("accounts of the receiver", "contas do recebedor"),
    "session_remote_access": ("a remote access tool ran", "ferramenta de acesso remoto em uso"),
    "session_on_call": ("a telephone call was on", "ligação telefônica em andamento"),
    "session_password_reset": ("the password was reset lately", "senha redefinida há pouco"),
    "session_limit_raised": ("the limit was raised in this session", "limite aumentado nesta sessão"),
    "session_new_device": ("the app calls the device new", "dispositivo novo segundo o aplicativo"),
    "session_sim_changed": ("the SIM card changed lately", "chip trocado há pouco"),
    "session_emulator": ("the device is an emulator", "o dispositivo é um emulador"),
    "session_rooted": ("the device's protection is off", "proteção do dispositivo desativada"),
    "session_accessibility": ("an accessibility service ran", "serviço de acessibilidade em uso"),
    "session_loan_drawn": ("a loan was drawn just before", "empréstimo contratado pouco antes"),
    "session_savings_redeemed": ("savings were redeemed just before", "aplicações resgatadas pouco antes"),
    "session_copy_paste": ("the key was pasted", "a chave foi colada"),
    "unregistered_device": ("the device is not registered", "o dispositivo não está cadastrado"),
}
"""Derived features; their code is their name in capitals, without its unit."""
