"""One frozen Settings, read once per process from ``ASTRID_*`` and passed down as a value.

Zero configuration is the demo. Secrets come from the environment or from files, never from flags.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from astrid.errors import ConfigError

PREFIX = "ASTRID_"

# Kubernetes writes the addresses of every service of a namespace into every pod (enableServiceLinks);
# a service called astrid-http would even look like our own ASTRID_HTTP_PORT. Where the name alone could be
# an operator's slip (ASTRID_HTPP_PORT), the value must be a link too.
_SERVICE_LINK = re.compile(
    r"ASTRID(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)"
)
_PORT_LINK = re.compile(r"ASTRID(_[A-Z0-9_]+)?_PORT=(tcp|udp|sctp)://.*", re.DOTALL)


class Settings(BaseSettings):
    """Everything an operator can decide. Field ``x`` is the environment variable ``ASTRID_X``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", case_sensitive=False, hide_input_in_errors=True
    )

    database_url: SecretStr | None = Field(
        None, description="PostgreSQL 15-18, with or without TimescaleDB; unset: an embedded one in the state folder"
    )
    broker_url: SecretStr = Field(
        SecretStr("memory://"), description="memory:// (inside one run) or amqp(s)://user:password@host:port/vhost"
    )
    github_tokens: SecretStr | None = Field(
        None, description="GitHub tokens: a comma-separated list, or the path of a file with one a line"
    )
    github_token_users: str | None = Field(
        None,
        description="whose the tokens are that cannot tell it themselves (app installations, GITHUB_TOKEN): "
        "place=login or name=login, separated by commas; undeclared ones count as one user's",
    )
    now: datetime | None = Field(None, description="the moment to take for now (ISO 8601 with zone); unset: the clock")
    clock_speed: float = Field(1.0, gt=0, le=100_000, description="how much faster than real the run's time passes")
    night_hours: float = Field(
        6.0, gt=0, le=24, description="how long a night may take at the limits of any upstream; the rest waits its turn"
    )
    lease_seconds: float = Field(
        45.0,
        ge=2,
        le=600,
        description="how long what one process may do alone (a night, a budget) stays its own after it was killed",
    )
    watchlist: Path | None = Field(None, description="a watchlist file; unset: the one that ships with Astrid")
    state_dir: Path | None = Field(None, description="folder of the embedded database; unset: the user's state folder")
    http_port: int = Field(8000, ge=1, le=65535, description="port of the API and the page")
    github_url: str = Field("https://api.github.com", description="GitHub REST; GraphQL is <url>/graphql")
    hn_algolia_url: str = Field("https://hn.algolia.com", description="Hacker News Search")
    hn_firebase_url: str = Field("https://hacker-news.firebaseio.com", description="Hacker News items")
    pypistats_url: str = Field("https://pypistats.org", description="PyPI downloads of the last 180 days")
    clickhouse_url: str = Field(
        "https://sql-clickhouse.clickhouse.com", description="public ClickHouse copy of PyPI's download log"
    )
    npm_url: str = Field("https://api.npmjs.org", description="npm download counts")
    huggingface_url: str = Field("https://huggingface.co", description="Hugging Face Hub")
    depsdev_url: str = Field("https://api.deps.dev", description="deps.dev")
    dockerhub_url: str = Field("https://hub.docker.com", description="Docker Hub")
    gharchive_url: str = Field("https://data.gharchive.org", description="GH Archive hour files")
    archive_url: str | None = Field(
        None, description="server of archived daily snapshots, <url>/<origin>/<YYYY-MM>.csv; unset: none are imported"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing behind the caller's back: :func:`load_settings` hands the environment in."""
        return (init_settings,)

    @field_validator("now")
    @classmethod
    def _aware(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("has no time zone; write for example 2026-04-01T05:00Z")
        return None if value is None else value.astimezone(UTC)

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not value.get_secret_value().startswith(("postgres://", "postgresql://")):
            raise ValueError("must start with postgresql://")
        return value

    @field_validator("broker_url")
    @classmethod
    def _broker(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().startswith(("memory://", "amqp://", "amqps://")):
            raise ValueError("must start with memory://, amqp:// or amqps://")
        return value

    @field_validator("watchlist")
    @classmethod
    def _exists(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"names no file: {value}")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _url(cls, value: Any, info: Any) -> Any:
        if info.field_name.endswith("_url") and isinstance(value, str):
            if not re.match(r"https?://[^/\s]", value):
                raise ValueError("must start with http:// or https:// and name a host")
            return value.rstrip("/")
        return value

    @property
    def base_urls(self) -> dict[str, str]:
        """Base URL per upstream name, as :class:`astrid.models.Request` names it."""
        urls = {
            "github": self.github_url,
            "hn_algolia": self.hn_algolia_url,
            "hn_firebase": self.hn_firebase_url,
            "pypistats": self.pypistats_url,
            "clickhouse": self.clickhouse_url,
            "npm": self.npm_url,
            "huggingface": self.huggingface_url,
            "depsdev": self.depsdev_url,
            "dockerhub": self.dockerhub_url,
            "gharchive": self.gharchive_url,
        }
        return urls | ({"archive": self.archive_url} if self.archive_url else {})

    def read_github_tokens(self) -> tuple[str, ...]:
        """Return the tokens, without doubles, in the order given.

        Raises
        ------
        ConfigError
            If the value looks like a path and no such file can be read, or something in it cannot be a token.
        """
        if self.github_tokens is None or not self.github_tokens.get_secret_value().strip():
            return ()
        text = self.github_tokens.get_secret_value().strip()
        if "/" in text or (len(text) < 256 and "\0" not in text and Path(text).is_file()):
            try:
                text = Path(text).read_text(encoding="utf-8-sig")
            except (OSError, ValueError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
                # Without the cause: a value that is no path at all may be a secret, and the cause would show it.
                raise ConfigError(
                    f"ASTRID_GITHUB_TOKENS names a file that cannot be read ({reason}): "
                    "give a comma-separated list of tokens, or a readable file with one token a line"
                ) from None
        lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
        tokens = tuple(dict.fromkeys(t for t in re.split(r"[\s,]+", "\n".join(lines)) if t))
        if not all(re.fullmatch(r"[!-~]+", t) for t in tokens):
            raise ConfigError("ASTRID_GITHUB_TOKENS holds something that is no token: only printable ASCII can be one")
        return tokens

    def read_github_token_users(self) -> dict[str, str]:
        """Return what is declared of tokens: a token's place (from 1) or name -> login.

        Raises
        ------
        ConfigError
            If a part of it is not ``place=login`` or ``name=login``, or one is declared twice.
        """
        declared: dict[str, str] = {}
        for part in filter(None, re.split(r"[\s,]+", (self.github_token_users or "").strip())):
            match = re.fullmatch(r"([1-9][0-9]{0,3}|[0-9a-f]{8})=([A-Za-z0-9][A-Za-z0-9_.\[\]-]{0,99})", part)
            if match is None or match[1] in declared:
                raise ConfigError(
                    "ASTRID_GITHUB_TOKEN_USERS is not a list like 1=octocat,2=octocat,3f2a91bc=builds: give each token "
                    "once, by its place in ASTRID_GITHUB_TOKENS or its name in the log, and its user"
                )
            declared[match[1]] = match[2]
        return declared


def load_settings(environ: Mapping[str, str], **overrides: Any) -> Settings:
    """Read the settings from ``environ``; ``overrides`` win (command-line options, the demo's own URLs).

    Raises
    ------
    ConfigError
        For an unknown ``ASTRID_*`` name (with the nearest known one), or a value that makes no sense.
        The message names the variable, never a secret's value.
    """
    known = {PREFIX + name.upper(): name for name in Settings.model_fields}
    values: dict[str, Any] = {}
    for variable, value in environ.items():
        upper = variable.upper()
        if not upper.startswith(PREFIX) or upper.startswith("ASTRID_TEST_"):
            continue
        if _SERVICE_LINK.fullmatch(upper) or _PORT_LINK.fullmatch(f"{upper}={value}"):
            continue
        if upper in known:
            if value != "":
                values[known[upper]] = value
        else:
            nearest = difflib.get_close_matches(upper, known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown setting {variable}: did you mean {nearest}? (unset it, or correct the name)")
    values.update({k: v for k, v in overrides.items() if v is not None})
    try:
        settings = Settings(**values)
    except ValidationError as exc:
        lines = [f"{PREFIX}{str(e['loc'][0]).upper()}: {e['msg'].removeprefix('Value error, ')}" for e in exc.errors()]
        raise ConfigError("; ".join(lines) + " (see docs/configuration.md)") from None
    settings.read_github_tokens()
    settings.read_github_token_users()
    return settings
