"""The section of the settings that says on which machines work is done."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from stackcls.section import Section

FILES = (".json", ".yaml", ".yml")
LOCAL = re.compile(r"local:([1-9][0-9]{0,2})")
INSTALL = "pip install 'stackcls[cluster]'"
CONFIGURED = "dask"  # whatever Dask's own configuration names
ALLOWED = (
    "allowed are a scheduler's address (tcp://host:8786, tls://host:8786), local:N for N processes on this machine (at "
    "most 999), a scheduler file (.json), a Dask configuration with a `scheduler-address` (.yaml), and `dask` for the "
    "one that Dask finds by itself"
)


def _address(address: str | None) -> str | None:
    if (
        address is None
        or address == CONFIGURED
        or LOCAL.fullmatch(address)
        or address.endswith(FILES)
        or re.fullmatch("(tcp|tls|ucx|ws|wss|inproc)://.+", address)
    ):
        return address
    raise ValueError(f"address is {address!r}; {ALLOWED}")


class ClusterSettings(Section):
    """On which machines networks run and base learners are fitted; this one alone where there is no address."""

    address: Annotated[str | None, AfterValidator(_address)] = None
    resources: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(default_factory=dict)
    timeout: float = Field(30.0, gt=0, le=3600)

    @property
    def processes(self) -> int | None:
        """How many are started on this machine; None where a cluster is there already."""
        local = LOCAL.fullmatch(self.address or "")
        return int(local[1]) if local else None
