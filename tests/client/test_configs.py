"""An application's connection settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrc.client import client_config
from mrc.config import load
from mrc.core.errors import MrcError
from mrc.core.model import Region
from mrc.sandbox import estate
from mrc.sandbox.layout import Options, State


def test_it_speaks_as_the_applications_user_to_its_own_region(tmp_path: Path) -> None:
    state = State(tmp_path)
    layout = state.make(Options())
    estate.write(layout, state)
    settings = load(state.config)
    assert client_config(settings, Region("west"), "producer", "secret") == {
        "bootstrap.servers": layout.bootstrap("west"),
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "producer",
        "sasl.password": "secret",
    }
    with pytest.raises(MrcError) as refused:
        client_config(settings, Region("north"))
    assert refused.value.code == "UNKNOWN_REGION"
