"""The runtime of arrays, dicts and text: one object layout, and its functions written once, in MIR."""
