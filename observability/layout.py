"""The slot file: where everything lies in it.

A slot file is a sparse file of fixed size, so that it never has to be mapped anew; only pages that are used take
memory. One process writes it, and any number may read it without a lock:

    header     magic, layout version, how much of each area is in use, and a JSON note on the owner
    flight     requests in flight, one entry each
    values     numbers, 8 bytes each; the first few have fixed places, the rest belong to series
    records    append-only: what family and series each value belongs to, each with length and CRC
    exemplars  one fixed-size entry a value that has had an exemplar

What is in use of an area is raised only after its bytes are written, so a writer killed at any point leaves a file
that reads well up to there.
"""

import struct
from typing import Final

MAGIC: Final = b"SIGHTLN\0"
VERSION: Final = 1

HEADER_SIZE: Final = 4096
IDENTITY: Final = struct.Struct("=8sQ")  # magic, version
USED: Final = struct.Struct("=QQQ")  # bytes of records, values, exemplars
USED_AT: Final = 16
ENDED: Final = struct.Struct("=d")  # monotonic seconds at which the owner was seen dead; 0 while it lives
ENDED_AT: Final = 40
NOTE: Final = struct.Struct("=II")  # CRC-32 and length of the JSON that follows
NOTE_AT: Final = 64
NOTE_MAX: Final = HEADER_SIZE - NOTE_AT - NOTE.size

FLIGHT_AT: Final = HEADER_SIZE
FLIGHT_ENTRIES: Final = 1024
# thread or greenlet, trace id in hex, method, path, start in monotonic seconds (0: free); start is written last
FLIGHT: Final = struct.Struct("=Q32s8s72sd")
FLIGHT_START_AT: Final = FLIGHT.size - 8
FLIGHT_SIZE: Final = FLIGHT_ENTRIES * FLIGHT.size

VALUES_AT: Final = FLIGHT_AT + FLIGHT_SIZE
VALUES_MAX: Final = 131_072

RECORDS_AT: Final = VALUES_AT + VALUES_MAX * 8
RECORDS_MAX: Final = 16 * 1024 * 1024
RECORD: Final = struct.Struct("=II")  # CRC-32 and length of the JSON that follows

EXEMPLARS_AT: Final = RECORDS_AT + RECORDS_MAX
EXEMPLARS_MAX: Final = 16_384
EXEMPLAR_SIZE: Final = 256
EXEMPLAR: Final = struct.Struct("=II")  # CRC-32 and length of the JSON that follows

SIZE: Final = EXEMPLARS_AT + EXEMPLARS_MAX * EXEMPLAR_SIZE

# Values with a fixed place. SEQUENCE is odd while the request values are being changed, so that a reader can see
# them whole; VOID takes what found no room.
SEQUENCE, REQUESTS, ERRORS, BUSY, ACTIVE, STARTS, REFUSED, VOID = range(8)
FIRST_SERIES: Final = 8
