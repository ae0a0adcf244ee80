"""Every counter, once: its name, its kind and a sentence. Counting an undeclared name is a KeyError.

Kinds: ``counter`` only grows; ``gauge`` goes up and down and falls to zero with its worker; ``histogram`` takes
seconds.
Rows of a ``family`` are counted per label (``add("route.requests", label="/")``).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from fileproxy import errors

Kind = Literal["counter", "gauge", "histogram"]


class Row(NamedTuple):
    name: str
    kind: Kind
    sentence: str
    family: str | None = None


def _ending_rows() -> list[Row]:
    """One row for each way a request can end: the declared errors, and the ends that are no error."""
    rows: dict[str, str] = {
        "completed": "The whole answer was handed to the client.",
        "method_refused": "The route does not allow the method (405).",
        "unsupported": "CONNECT, TRACE or an Upgrade was asked for.",
        "no_route": "No route serves this host and path (404).",
        "forbidden": "The client may not see this (403).",
        "malformed": "The request head or chunked body broke the rules of HTTP (400, 408, 414, 431).",
        "head_timeout": "The head of a request did not come in time (408).",
        "drained_out": "A leaving worker's drain_timeout ended a running download.",
    }
    stack: list[type[errors.FileProxyError]] = [errors.FileProxyError]
    while stack:
        kind = stack.pop()
        # Only those of errors.py, so that every process has the same table whatever it imported.
        stack.extend(one for one in kind.__subclasses__() if one.__module__ == errors.__name__)
        rows.setdefault(kind.ending, (kind.__doc__ or kind.__name__).strip().splitlines()[0])
    return [Row(f"ending.{name}", "counter", sentence) for name, sentence in sorted(rows.items())]


TABLE: tuple[Row, ...] = (
    Row("requests", "counter", "Requests whose head was read."),
    Row("errors", "counter", "Requests that ended in a 5xx of ours or a body cut short."),
    Row("bytes.to_clients", "counter", "Body bytes handed to clients."),
    Row("bytes.from_clients", "counter", "Body bytes read from clients."),
    Row("bytes.from_upstreams", "counter", "Body bytes read from upstreams."),
    Row("bytes.spliced", "counter", "Of these, those that went on through a pipe, without being copied here."),
    Row("bytes.sendfile", "counter", "Body bytes that went from a file to their client without being copied here."),
    Row("hints.passed", "counter", "Interim answers (1xx) of upstreams that were passed on to clients."),
    Row("connections.accepted", "counter", "Client connections accepted."),
    Row("connections.open", "gauge", "Client connections open now."),
    Row("connections.bbr", "counter", "Client connections given BBR, because they were far or lost packets."),
    Row("connections.shed", "counter", "Client connections turned away because too many were open."),
    Row("downloads.active", "gauge", "Requests being served now."),
    Row("downloads.cut", "counter", "Answers cut short after their first byte; the client saw a broken connection."),
    Row("upstream.connections", "counter", "Connections opened to upstreams."),
    Row("upstream.reused", "counter", "Requests sent on a kept connection."),
    Row("workers.started", "counter", "Workers started since the service was."),
    Row("workers.crashed", "counter", "Workers that ended without being told to."),
    Row("workers.lag_sheds", "counter", "Late wake-ups (over limits.loop_lag) that made the loop count as overloaded."),
    Row("tasks.failed", "counter", "Background tasks that ended with an error nobody awaited."),
    Row("reloads.applied", "counter", "Configurations taken over by a worker without a restart."),
    Row("logs.dropped", "counter", "Log lines that could not be written."),
    Row("bans.added", "counter", "Bans this service was told to add (purges)."),
    Row("bans.received", "counter", "Bans that came from other machines."),
    Row("bans.refused", "counter", "Bans in the shared store that were not genuine."),
    Row("cache.memory_hits", "counter", "Blocks handed out from memory."),
    Row("cache.memory_misses", "counter", "Records and blocks looked for in memory that were not there."),
    Row("cache.memory_admitted", "counter", "Records and blocks taken into memory."),
    Row("cache.memory_rejected", "counter", "Records and blocks that were not worth what they would have pushed out."),
    Row("cache.memory_evicted", "counter", "Records and blocks that left memory for others, or for a smaller budget."),
    Row("cache.memory_bytes", "gauge", "Bytes the memory tier holds, overhead included."),
    Row("cache.memory_budget", "gauge", "Bytes the memory tier may hold now."),
    Row("cache.redis_hits", "counter", "Records found in the shared store."),
    Row("cache.redis_misses", "counter", "Records looked for in the shared store that were not there."),
    Row("cache.redis_saved", "counter", "Records written to the shared store."),
    Row("cache.redis_damaged", "counter", "Records of the shared store that were not genuine or whole; removed."),
    Row("purge.requests", "counter", "Purges asked for with the admin token."),
    Row("warm.fetched", "counter", "Files a warm job fetched."),
    Row("warm.failed", "counter", "Files a warm job could not fetch."),
    Row("admin.refused", "counter", "Admin calls without the right token."),
    Row("shared.failures", "counter", "Calls of the shared store that failed or took too long."),
    Row("cache.hit", "counter", "Answers from what is stored and fresh."),
    Row("cache.miss", "counter", "Answers that had to be fetched, and are kept."),
    Row("cache.partial", "counter", "Answers of which a part was stored."),
    Row("cache.stale", "counter", "Answers from what is stored and stale, where that is allowed."),
    Row("cache.revalidated", "counter", "Answers from what the origin confirmed."),
    Row("cache.collapsed", "counter", "Asks that waited for another one's fetch and read along."),
    Row("cache.hit_for_miss", "counter", "Asks that did not wait because answers for their key cannot be shared."),
    Row("cache.refreshed_behind", "counter", "Revalidations behind an answer (stale-while-revalidate)."),
    Row("cache.stale_on_error", "counter", "Stale answers because the origin failed."),
    Row("cache.purged", "counter", "Stored files found to be purged when they were asked for."),
    Row("cache.condemned", "counter", "Stored files dropped because they changed or were not what they said."),
    Row("cache.digest_mismatches", "counter", "Files whose bytes did not have the digest their origin said."),
    Row("cache.digest_unchecked", "counter", "Files with a digest that could not be checked: blocks had gone."),
    Row("peer.alone", "counter", "Fetches without the worker that owns the key, because it could not be reached."),
    Row("flight.started", "counter", "Segments that began to be fetched."),
    Row("flight.running", "gauge", "Segments being fetched now."),
    Row("flight.early", "counter", "Parts asked for while the first answer for their file was still on its way."),
    Row("flight.resumed", "counter", "Segments that went on at the next missing byte after a break."),
    Row("stream.shared_out", "counter", "Fetches that went on over several connections, because one was too slow."),
    Row("stream.hedges", "counter", "Parts asked for a second time, because they were late."),
    Row("stream.bytes_twice", "counter", "Bytes that came twice for that reason."),
    Row("stream.breaks", "counter", "Connections of such fetches that broke; others went on."),
    Row(
        "downloads.begun_again", "counter", "Downloads whose body broke before any of it went out, and that began anew."
    ),
    Row(
        "relay.resumed", "counter", "Answers for one client alone that went on at the next missing byte after a break."
    ),
    Row("flight.failed", "counter", "Segments that could not go on."),
    Row("cache.disk_reads", "counter", "Runs of blocks handed out from disk."),
    Row("cache.disk_writes", "counter", "Blocks written to disk."),
    Row("cache.disk_skipped", "counter", "Blocks not written to disk: it lagged, was full, or was not well."),
    Row("cache.damaged", "counter", "Blocks and records found damaged on disk when they were wanted; not served."),
    Row("cache.scrub_damaged", "counter", "Blocks and records the scrubber found damaged on disk."),
    Row("cache.evicted", "counter", "Files of the disk tier that made room for others."),
    Row("cache.evicted_bytes", "counter", "Bytes of disk they took."),
    Row("compression.skipped", "counter", "Answers sent as they are: the worker had too much to do to compress them."),
    Row("coding.answers", "counter", "Answers sent whole in this content coding.", "coding"),
    Row("coding.kept", "counter", "Of these from a copy that was kept.", "coding"),
    Row("coding.siblings", "counter", "Of these from a file that the origin keeps beside it.", "coding"),
    Row("coding.bytes_in", "counter", "Bytes these answers stand for.", "coding"),
    Row("coding.bytes_out", "counter", "Bytes they came to.", "coding"),
    Row("response_time", "histogram", "Head of the request read to first byte of the answer out."),
    Row("route.requests", "counter", "Requests of this route.", "route"),
    Row("route.errors", "counter", "Its requests that ended in a 5xx of ours or a body cut short.", "route"),
    Row("route.bytes", "counter", "Body bytes it handed to clients.", "route"),
    Row("route.response_time", "histogram", "Its response time.", "route"),
    Row("upstream.first_tries", "counter", "Requests this upstream was asked for the first time.", "upstream"),
    Row("upstream.retries", "counter", "Requests it was asked again.", "upstream"),
    Row("upstream.retries_refused", "counter", "Retries its budget did not allow.", "upstream"),
    Row("upstream.queued", "counter", "Requests that waited because every mirror was failing.", "upstream"),
    Row("upstream.failed", "counter", "Requests given up for it after all tries.", "upstream"),
    Row("upstream.answers", "counter", "Answers, and tries that failed: what its rate goes by.", "upstream"),
    Row("upstream.errors", "counter", "Of these 5xx, 429, time-outs and broken connections.", "upstream"),
    Row("upstream.rate_limit", "gauge", "Requests a second all workers may send it; 0: not limited.", "upstream"),
    Row("upstream.rate_led", "gauge", "The same, as the worker that judges it tells the others.", "upstream"),
    Row("upstream.rate_lowered", "counter", "Times that rate was lowered because of errors.", "upstream"),
    Row("upstream.rate_raised", "counter", "Times it was raised again.", "upstream"),
    Row("upstream.concurrency_limit", "gauge", "Requests that may be on their way to it; 0: not limited.", "upstream"),
    Row("upstream.waiting", "gauge", "Requests that wait for its rate or concurrency limit now.", "upstream"),
    Row("upstream.waited", "counter", "Requests that had to wait for them.", "upstream"),
    Row("upstream.shed", "counter", "Requests turned away because waiting for them was hopeless.", "upstream"),
    Row("mirror.tries", "counter", "Tries sent to this mirror.", "mirror"),
    Row("mirror.failures", "counter", "Tries that failed or were answered with a retried status.", "mirror"),
    Row("mirror.bytes", "counter", "Body bytes read from it.", "mirror"),
    Row("mirror.breaks", "counter", "Its answers that broke inside the body.", "mirror"),
    Row("mirror.shut_off", "gauge", "Workers that ask it nothing, or only to see how it is: its breaker.", "mirror"),
    Row("mirror.trips", "counter", "Times its breaker opened.", "mirror"),
    Row("mirror.probes", "counter", "Times it was asked how it is: health checks, and while shut off.", "mirror"),
    Row("mirror.probes_failed", "counter", "Bad answers to that, or none.", "mirror"),
    Row("mirror.first_byte", "histogram", "Request sent to first byte of its answer.", "mirror"),
    *_ending_rows(),
)
