"""Colours that people who cannot tell red from green can read, after Okabe and Ito (https://jfly.uni-koeln.de/color/).

Grafana's own palette for that (`palette-colorblind`) is not in Grafana 12.4, and its classic one has red and green. So
series have colours by what they are called: by their names where those are known, else by what tells them apart.
"""

from typing import Final

BLUE: Final = "#0072B2"
ORANGE: Final = "#E69F00"
SKY: Final = "#56B4E9"
PURPLE: Final = "#CC79A7"
VERMILION: Final = "#D55E00"
YELLOW: Final = "#F0E442"
TEAL: Final = "#009E73"
GREY: Final = "#707070"

WINE: Final = "#882255"  # this and the next are of Paul Tol's sets, for the ninth and the tenth
SAND: Final = "#DDCC77"

# States differ in lightness as well, for those who see no colour at all. There is no green among them.
GOOD: Final = "#3A8FCC"
WARNING: Final = "#F0B23C"
BAD: Final = "#C4321E"

# Of a panel's queries, in this order.
QUERIES: Final = (BLUE, ORANGE, SKY, PURPLE, YELLOW, GREY)

# Ten things that are told apart by a digit, or by a number's remainder.
_TEN: Final = (SAND, BLUE, ORANGE, SKY, PURPLE, TEAL, YELLOW, VERMILION, GREY, WINE)

# Workers, by the last digit of their number: each has the same colour in each panel.
WORKERS: Final = {f"/worker \\d*{digit}$/": colour for digit, colour in enumerate(_TEN)}

# Servers, at the beginning of a name, by the last digit of their address; on one host, by that of their port.
SERVERS: Final = {
    **{f"/^[^\\s:]*{digit}(?::9101)?(?:\\s|$)/": colour for digit, colour in enumerate(_TEN)},
    **{f"/^[^\\s:]*:(?!9101\\b)\\d*{digit}(?:\\s|$)/": colour for digit, colour in enumerate(_TEN)},
}

# Routes, and what else nobody can know before, by how long the name is: two may be alike, and most are not. A method
# before it does not count, so that a route has one colour.
NAMES: Final = {
    f"/^(?:[A-Z_]+ )?(?![A-Z_]+ )(?:.{{9}})*.{{{length}}}$/": colour
    for length, colour in enumerate(colour for colour in _TEN if colour != WINE)
}

ALL: Final = frozenset({*QUERIES, *_TEN, GOOD, WARNING, BAD})
