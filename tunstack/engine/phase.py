"""The phases of loss recovery, and what its timer is for."""

# Phases, by Linux's names (tcpi_ca_state).
OPEN = 0  # nothing amiss
DISORDER = 1  # duplicate ACKs or SACKs, nothing lost yet
CWR = 2  # the window falls without a loss (ECN)
RECOVERY = 3  # fast recovery: ends when `recover` is acknowledged
LOSS = 4  # after a timeout: everything in flight then is in doubt

# What the retransmission timer is for.
TIMEOUT = 0  # RTO
PROBE = 1  # tail loss probe
REORDER = 2  # RACK's reordering window
