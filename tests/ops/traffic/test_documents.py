"""Invented identifiers hold the checks of real ones."""

from __future__ import annotations

import numpy as np

from app.domain.pix_keys import deduce_key_type, is_cnpj, is_cpf
from ops.traffic import documents


def test_known_documents_get_their_known_check_digits() -> None:
    """The published examples of pix-domain.md come out."""
    assert documents.cpf_numbers(np.array([529_982_247])).tolist() == [52_998_224_725]
    assert documents.cnpj(0, letters=False) == "00000000000191"


def test_documents_pass_the_check_of_the_decoder() -> None:
    """CPFs and CNPJs, alphanumeric ones too, are valid and distinct."""
    rng = np.random.default_rng(3)
    bases = rng.integers(100_000_001, 10**9, 500)
    assert all(is_cpf(f"{number:011d}") for number in documents.cpf_numbers(bases).tolist())
    numbers = rng.integers(0, 36**8, 500).tolist()
    lettered = [documents.cnpj(number, letters=True) for number in numbers]
    assert all(is_cnpj(text) for text in lettered)
    assert any(character.isalpha() for text in lettered for character in text)
    assert len(set(lettered)) == len(set(numbers))


def test_keys_have_the_form_of_their_type() -> None:
    """Telephones, addresses and random keys are recognised as what they are."""
    assert deduce_key_type(documents.phone(11_987_654)) == "PHONE"
    assert deduce_key_type(documents.email(5)) == "EMAIL"
    assert deduce_key_type(documents.evp(-1, 2**62 + 12_345)) == "EVP"


def test_addresses_belong_to_no_public_host() -> None:
    """Every IP address lies in 100.64.0.0/10."""
    for number in (0, 2**22 - 1, 123_456_789_012):
        first, second, *_ = (int(part) for part in documents.ip_address(number).split("."))
        assert first == 100
        assert 64 <= second < 128
