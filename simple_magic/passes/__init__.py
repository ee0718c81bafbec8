"""MIR -> MIR. A mode is a pass; the verifier accepts what every pass returns."""
