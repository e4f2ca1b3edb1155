"""Judges a certificate and its key. Pure."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives import serialization


def pair_problem(certificate: str, key: str, now: datetime.datetime) -> str:
    """Why two PEM texts are no valid pair at `now`, or an empty text; that both are empty is in order."""
    if not certificate and not key:
        return ""
    if not certificate or not key:
        return f"is only half a pair: {'proxy_certificate_key' if certificate else 'proxy_certificate'} is empty"
    try:
        leaf = x509.load_pem_x509_certificates(certificate.encode())[0]
    except ValueError:
        return "is no certificate in PEM form"
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError):
        return "has a proxy_certificate_key that is no PEM private key without a password"
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if leaf.public_key().public_bytes(*form) != private.public_key().public_bytes(*form):
        return "does not belong to proxy_certificate_key"
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        return f"is valid from {leaf.not_valid_before_utc:%Y-%m-%d} to {leaf.not_valid_after_utc:%Y-%m-%d}, not today"
    return ""
