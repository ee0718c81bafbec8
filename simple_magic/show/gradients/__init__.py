"""What happened to gradients, as pictures and tables: each a pure function of traces and verdicts. `marks.py` says how a verdict looks everywhere."""
