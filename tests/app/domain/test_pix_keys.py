"""Forms and check digits of Pix keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.pix_keys import (
    deduce_key_type,
    is_cnpj,
    is_cpf,
    is_email,
    is_end_to_end_id,
    is_evp,
    is_phone,
    is_tax_id,
)

DIGITS = "0123456789"
FORMS = {"CPF": is_cpf, "CNPJ": is_cnpj, "PHONE": is_phone, "EMAIL": is_email, "EVP": is_evp}


@pytest.mark.parametrize("text", ["52998224725", "11144477735", "00000000191"])
def test_cpf_with_right_check_digits(text: str) -> None:
    """A CPF whose digits are right is one, a tax id, and a key."""
    assert is_cpf(text)
    assert is_tax_id(text)
    assert deduce_key_type(text) == "CPF"


@pytest.mark.parametrize(
    "text",
    [
        "52998224726",
        "52998224735",
        "11111111111",
        "00000000000",
        "5299822472",
        "529982247250",
        "529.982.247-25",
        "52998224725\n",
        "٥٢٩٩٨٢٢٤٧٢٥",
        "",
    ],
)
def test_what_is_no_cpf(text: str) -> None:
    """Wrong digits, equal digits, other lengths, punctuation, a trailing newline or other scripts' digits."""
    assert not is_cpf(text)
    assert deduce_key_type(text) is None


@pytest.mark.parametrize("text", ["12ABC34501DE35", "00000000000191", "33000167000101"])
def test_cnpj_with_right_check_digits(text: str) -> None:
    """A CNPJ may hold letters since July 2026."""
    assert is_cnpj(text)
    assert is_tax_id(text)
    assert deduce_key_type(text) == "CNPJ"


@pytest.mark.parametrize(
    "text",
    [
        "12ABC34501DE36",
        "12ABC34501DE45",
        "12abc34501de35",
        "00000000000000",
        "12ABC34501DEA5",
        "12.ABC.345/01DE-35",
        "0000000000191",
        "00000000000191\n",
        "12ÁBC34501DE35",
    ],
)
def test_what_is_no_cnpj(text: str) -> None:
    """Wrong digits, small letters, all zeros, letters as check digits, punctuation."""
    assert not is_cnpj(text)
    assert deduce_key_type(text) is None


@given(st.text(DIGITS, min_size=9, max_size=9).filter(lambda text: len(set(text)) > 1))
def test_exactly_one_pair_of_check_digits_fits_a_cpf(stem: str) -> None:
    """Of the hundred endings of nine digits one is a CPF."""
    assert sum(is_cpf(f"{stem}{ending:02}") for ending in range(100)) == 1


@given(st.text(DIGITS + "ABCXYZ", min_size=12, max_size=12).filter(lambda text: set(text) != {"0"}))
def test_exactly_one_pair_of_check_digits_fits_a_cnpj(stem: str) -> None:
    """Of the hundred endings of twelve characters one is a CNPJ."""
    assert sum(is_cnpj(f"{stem}{ending:02}") for ending in range(100)) == 1


@pytest.mark.parametrize(("text", "verdict"), [
    ("+5511987654321", True), ("+10", False), ("+101", True), ("+1234567890123456", True),
    ("+12345678901234567", False), ("+0511987654321", False), ("5511987654321", False), ("+55 11987654321", False),
    ("+5511987654321\n", False), ("+55119876543\uff121", False),
])  # fmt: skip
def test_phone(text: str, verdict: bool) -> None:  # noqa: FBT001 (a parameter of the table above)
    """`+`, a country that does not start with 0, 3 to 16 digits in all."""
    assert is_phone(text) is verdict


@pytest.mark.parametrize(("text", "verdict"), [
    ("pix@bcb.gov.br", True), ("a@b", True), ("a.b+c_d~{x}@x-y.z9", True), ("Pix@bcb.gov.br", False),
    ("pix@-bcb.br", False), ("pix@bcb-.br", False), ("pix@bcb..br", False), ("@bcb.br", False), ("pix@", False),
    ("p@x@b", False), ("joão@bcb.br", False), ("a" * 70 + "@bcb.br", True), ("a" * 71 + "@bcb.br", False),
    ("a@" + "b" * 63, True), ("a@" + "b" * 64, False), ("pix@bcb.br\n", False), ("a b@c", False), ('"a"@c', False),
])  # fmt: skip
def test_email(text: str, verdict: bool) -> None:  # noqa: FBT001 (a parameter of the table above)
    """DICT's pattern: lower case, labels of 1 to 63, at most 77 characters."""
    assert is_email(text) is verdict


@pytest.mark.parametrize(("text", "verdict"), [
    ("123e4567-e89b-12d3-a456-426655440000", True), ("123E4567-e89b-12d3-a456-426655440000", False),
    ("123e4567e89b12d3a456426655440000", False), ("123e4567-e89b-12d3-a456-42665544000g", False),
    ("123e4567-e89b-12d3-a456-426655440000\n", False), ("123e45670e89b-12d3-a456-426655440000", False),
])  # fmt: skip
def test_evp(text: str, verdict: bool) -> None:  # noqa: FBT001 (a parameter of the table above)
    """A UUID in lower case with its hyphens."""
    assert is_evp(text) is verdict


@given(st.text("0123456789abcdef+@-.", max_size=40) | st.from_regex(r"\+?[0-9A-Z]{10,15}", fullmatch=True))
def test_no_key_has_two_types(key: str) -> None:
    """A key's type is the only form that it has, or None where it has none."""
    assert [name for name, has_form in FORMS.items() if has_form(key)] == list(filter(None, [deduce_key_type(key)]))


@pytest.mark.parametrize(("text", "verdict"), [
    ("E12345678202609211333abcDEF12345", True), ("D12345678202609211333abcDEF12345", False),
    ("e12345678202609211333abcDEF12345", False), ("E12345678202609212433abcDEF12345", False),
    ("E12345678202609211360abcDEF12345", False), ("E12345678202613211333abcDEF12345", False),
    ("E12345678202600211333abcDEF12345", False), ("E12345678202609001333abcDEF12345", False),
    ("E12345678202609311333abcDEF12345", False), ("E12345678202802291333abcDEF12345", True),
    ("E12345678202602291333abcDEF12345", False), ("E12345678210002291333abcDEF12345", False),
    ("E12345678200002291333abcDEF12345", True), ("E1234567A202609211333abcDEF12345", False),
    ("E12345678202609211333abcDEF1234-", False), ("E12345678202609211333abcDEF1234", False),
    ("E12345678202609211333abcDEF123456", False), ("E12345678202609211333abcDEF1234\n", False),
])  # fmt: skip
def test_end_to_end_id(text: str, verdict: bool) -> None:  # noqa: FBT001 (a parameter of the table above)
    """`E`, 8 digits, a minute of the calendar, 11 letters or digits."""
    assert is_end_to_end_id(text) is verdict
