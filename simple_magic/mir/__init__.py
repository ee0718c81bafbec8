"""The language: opcode table, data model, text and JSON forms, verifier. Standard library only."""
