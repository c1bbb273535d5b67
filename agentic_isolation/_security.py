"""How calls to a service are secured: the token that goes with them, and the channels that they go over."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from agentic_isolation._forking import ends_use, refuse_forked, uses_grpc
from agentic_isolation._loops import same_loop
from agentic_isolation._threads import in_thread
from agentic_isolation.credentials import Credentials, check_token
from agentic_isolation.errors import InvalidArgumentError

_T = TypeVar("_T")
_Options = Sequence[tuple[str, Any]]
_Metadata = tuple[tuple[str, str], ...]
_PAUSE = 1.0
"""Seconds between two looks at files."""
_NO_CONNECTION = "failed to connect"
_HUNG_UP = ("Socket closed", "Connection reset", "Broken pipe", "Unwrap failed")
"""In the details of the status, UNAVAILABLE, of a call for which the other side let no connection come about.

The last one is what gRPC makes of the alert by which proxies say that they want a certificate.
"""
_NO_TLS_THERE = "WRONG_VERSION_NUMBER"
_NO_PROXY = (("grpc.enable_http_proxy", 0),)
"""A proxy that the environment names would be told what is meant for this machine, or for a mesh, only."""


class Token:
    """The token that goes with each call, if there is one.

    Args:
        credentials: What names it.
    """

    def __init__(self, credentials: Credentials) -> None:
        self._fixed = None if credentials.token is None else _metadata_of(credentials.token)
        self._file = None
        if credentials.token_file is not None:
            file = Path(credentials.token_file)
            self._file = _Watched([file], lambda: _metadata_of(_token_in(file)))

    async def metadata(self) -> _Metadata | None:
        """Returns what goes with a call; None: nothing does.

        Raises:
            InvalidArgumentError: The file of the token cannot be read, or holds none.
        """
        return self._fixed if self._file is None else await self._file.current()


class Channels:
    """The channel to a service, which is another one after its certificates have changed. Calls end where they began.

    Args:
        target: `host:port` or `unix:PATH`.
        credentials: For it.
        options: Of its channels.

    Raises:
        InvalidArgumentError: A token would leave this machine in plaintext.
    """

    def __init__(self, target: str, credentials: Credentials, options: _Options) -> None:
        self._target, self._credentials = target, credentials
        self._options = [*options]
        self._closed = False
        self._leases: dict[grpc.aio.Channel, int] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._channel: grpc.aio.Channel | None = None
        self._plain = partial(grpc.aio.insecure_channel, target, options=self._options)
        self._certificates: _Watched[grpc.ChannelCredentials] | None = None
        self._used: grpc.ChannelCredentials | None = None
        unix = target.startswith(("unix:", "unix-abstract:"))
        if credentials.wants_tls and not unix:
            if credentials.server_name is not None:
                self._options.append(("grpc.ssl_target_name_override", credentials.server_name))
            files = (credentials.ca_file, credentials.certificate_file, credentials.key_file)
            self._certificates = _Watched([Path(file) for file in files if file is not None], self._secured)
        elif credentials.has_token and (unix or _is_loopback(target)):
            # It fails where the other end turns out to be on another machine.
            kind = grpc.LocalConnectionType.UDS if unix else grpc.LocalConnectionType.LOCAL_TCP
            local = grpc.local_channel_credentials(kind)
            self._plain = partial(grpc.aio.secure_channel, target, local, options=[*self._options, *_NO_PROXY])
        elif credentials.has_token and not credentials.plaintext:
            raise InvalidArgumentError(
                f"it would travel to {target} in plaintext; give ca_file (AGENTIC_ISOLATION_TLS_CA), or tls "
                "(AGENTIC_ISOLATION_TLS=1) for a service whose certificate is from a public authority, or plaintext "
                "(AGENTIC_ISOLATION_PLAINTEXT=1) in a mesh that has TLS",
                field="credentials.token",
            )
        elif credentials.has_token:
            self._options.extend(_NO_PROXY)

    def lease(self) -> AbstractAsyncContextManager[grpc.aio.Channel]:
        """Returns what gives the channel for one call.

        Entered, it raises InvalidArgumentError where the files for TLS cannot be read or make no sense,
        grpc.aio.UsageError where the channels are closed, RuntimeError on another event loop than before, and
        UnsupportedError in a process that was forked while gRPC was in use.
        """
        return _Lease(self)

    async def begin(self) -> grpc.aio.Channel:
        """Returns the channel for a call, which is not closed before the call has ended; raises what `lease` does."""
        channel = await self._current()
        self._leases[channel] = self._leases.get(channel, 0) + 1
        return channel

    async def end(self, channel: grpc.aio.Channel) -> None:
        """Takes note that a call over a channel has ended."""
        self._leases[channel] -= 1
        if not self._leases[channel]:
            del self._leases[channel]
            if channel is not self._channel:
                await channel.close(None)

    def advice(self, details: str) -> str:
        """Returns what may help where gRPC says that no connection came about; empty: nothing is known that might."""
        if _NO_CONNECTION not in details:
            return ""
        if _NO_TLS_THERE in details:
            return "; the service does not seem to have TLS"
        if not any(words in details for words in _HUNG_UP):
            return ""
        if self._certificates is not None:
            return "; if the service has client_ca, it wants a certificate of these authorities (certificate_file)"
        return "; if the service has TLS, give ca_file (AGENTIC_ISOLATION_TLS_CA) or tls (AGENTIC_ISOLATION_TLS=1)"

    async def aclose(self) -> None:
        """Closes all channels and cancels their calls."""
        self._closed = True
        for channel in {*self._leases, *([] if self._channel is None else [self._channel])}:
            await channel.close(None)
        ends_use(self)

    async def _current(self) -> grpc.aio.Channel:
        self._refuse_when_closed()
        refuse_forked()
        self._loop = same_loop(self._loop)
        if self._certificates is not None:
            certificates = await self._certificates.current()
            self._refuse_when_closed()
            if self._channel is None or certificates is not self._used:
                uses_grpc(self)
                before, self._used = self._channel, certificates
                self._channel = grpc.aio.secure_channel(self._target, certificates, options=self._options)
                if before is not None and before not in self._leases:
                    await before.close(None)
        elif self._channel is None:
            uses_grpc(self)
            self._channel = self._plain()
        assert self._channel is not None
        return self._channel

    def _refuse_when_closed(self) -> None:
        # gRPC itself notices only when it is asked for a call, not for a method: that may never return.
        if self._closed:
            raise grpc.aio.UsageError("the channel is closed")

    def _secured(self) -> grpc.ChannelCredentials:
        """Reads the files for TLS. Runs in a thread."""
        given = self._credentials
        authorities, key, chain = (
            None if file is None else _read(file, name)
            for name, file in (
                ("ca_file", given.ca_file),
                ("key_file", given.key_file),
                ("certificate_file", given.certificate_file),
            )
        )
        # gRPC would take anything, and connect to nobody afterwards.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        try:
            if given.ca_file is not None:
                context.load_verify_locations(given.ca_file)
        except ssl.SSLError:
            raise InvalidArgumentError("it holds no certificates in PEM", field="credentials.ca_file") from None
        try:
            if given.certificate_file is not None and given.key_file is not None:
                context.load_cert_chain(given.certificate_file, given.key_file, password=lambda: "")
        except ssl.SSLError:
            raise InvalidArgumentError(
                "it is not, in PEM and without a passphrase, the key of certificate_file", field="credentials.key_file"
            ) from None
        return grpc.ssl_channel_credentials(authorities, key, chain)


class _Lease:
    """Of one call. Written out, as it is on the way of every command."""

    __slots__ = ("_channel", "_channels")

    def __init__(self, channels: Channels) -> None:
        self._channels = channels

    async def __aenter__(self) -> grpc.aio.Channel:
        self._channel = await self._channels.begin()
        return self._channel

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._channels.end(self._channel)


class Method:
    """A method of the service, to be called over any channel to it."""

    __slots__ = ("_call", "_channel", "_kind", "_options", "_path")

    def __init__(self, kind: str, path: str, options: dict[str, Any]) -> None:
        self._kind, self._path, self._options = kind, path, options
        self._channel: grpc.aio.Channel | None = None
        self._call: Any = None

    def __call__(self, channel: grpc.aio.Channel, request: Any, **options: Any) -> Any:
        """Calls it over a channel and returns gRPC's call."""
        if channel is not self._channel:
            self._call = getattr(channel, self._kind)(self._path, **self._options)
            self._channel = channel
        return self._call(request, **options)


class Methods:
    """Takes the place of a channel for a stub, whose methods are then `Method`s."""

    def unary_unary(self, path: str, **options: Any) -> Method:
        """Returns a method that takes one message and gives one."""
        return Method("unary_unary", path, options)

    def unary_stream(self, path: str, **options: Any) -> Method:
        """Returns a method that takes one message and gives many."""
        return Method("unary_stream", path, options)

    def stream_unary(self, path: str, **options: Any) -> Method:
        """Returns a method that takes many messages and gives one."""
        return Method("stream_unary", path, options)

    def stream_stream(self, path: str, **options: Any) -> Method:
        """Returns a method that takes and gives many messages."""
        return Method("stream_stream", path, options)


class _Watched(Generic[_T]):
    """What is made of files, and made anew after they have changed.

    Files that are broken then change nothing, and are read again until they are not: what makes them readable, such as
    chmod(2), need not show.
    """

    def __init__(self, files: Sequence[Path], make: Callable[[], _T]) -> None:
        self._files, self._make = tuple(files), make
        self._lock = asyncio.Lock()
        self._mark: object = None
        self._made: _T | None = None
        self._looked = float("-inf")

    async def current(self) -> _T:
        """Returns it. Raises what making it does, where it was not made yet."""
        if time.monotonic() - self._looked >= _PAUSE:
            async with self._lock:
                await in_thread(self._look)
        assert self._made is not None
        return self._made

    def _look(self) -> None:
        mark = [_mark_of(file) for file in self._files]
        if self._made is None or mark != self._mark:
            try:
                self._made = self._make()
            except InvalidArgumentError:
                if self._made is None:
                    raise
            else:
                self._mark = mark
        self._looked = time.monotonic()


def _mark_of(file: Path) -> tuple[int, int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _read(file: str | os.PathLike[str], name: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise InvalidArgumentError(
            f"{os.fspath(file)} cannot be read: {error.strerror}", field=f"credentials.{name}"
        ) from None


def _token_in(file: Path) -> str:
    return check_token(_read(file, "token_file").decode("ascii", "replace").strip(), "credentials.token_file")


def _metadata_of(token: str) -> _Metadata:
    return (("authorization", f"Bearer {token}"),)


def _is_loopback(target: str) -> bool:
    """Returns whether a target, in one of gRPC's forms, is this machine itself."""
    for scheme in ("dns:///", "dns:", "ipv4:", "ipv6:"):
        target = target.removeprefix(scheme)
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
