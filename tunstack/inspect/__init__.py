"""Looking at the engine without changing it: ss, netstat, traces, plots. This room is furnished by a later release."""
