"""The fuzzer's corpus through C and twin: every input must be read, and written again, alike."""

from __future__ import annotations

from typing import Any

from native.corpus import CORPUS, decode
from native.support import CODECS, content, fields

INPUTS = sorted(CORPUS.iterdir())


def test_the_corpus_is_there_and_small() -> None:
    assert 20 <= len(INPUTS) < 300
    assert sum(path.stat().st_size for path in INPUTS) < 500_000


def test_every_input_is_read_and_written_alike() -> None:
    seen = {"segments": 0, "runs": 0, "acks": 0, "packets": 0, "errors": 0}
    for path in INPUTS:
        data = path.read_bytes()
        if not data:
            continue
        vnet, coalesce, coalesce_acks, frames = decode(data)
        batches = [codec.Reader(vnet, coalesce=coalesce, coalesce_acks=coalesce_acks).parse(frames) for codec in CODECS]
        assert content(batches[0]) == content(batches[1]), path.name
        seen["segments"] += len(batches[0].segments)
        seen["runs"] += sum(segment.gso_size > 0 for segment in batches[0].segments)
        seen["acks"] += sum(segment.packets > 1 and not segment.length for segment in batches[0].segments)
        seen["packets"] += len(batches[0].packets)
        seen["errors"] += batches[0].header_errors + batches[0].checksum_errors
        for segment in batches[0].segments:
            sent: list[Any] = []
            for codec in CODECS:
                try:
                    sent.append(codec.encode(segment))
                except OSError as error:
                    sent.append(error.errno)
            assert sent[0] == sent[1], path.name
        for frame in frames:
            single = [codec.parse_datagram(frame[10:] if vnet else frame) for codec in CODECS]
            assert (single[0] and fields(single[0])) == (single[1] and fields(single[1])), path.name
    assert min(seen.values()) >= 10, seen  # the corpus reaches all of it
