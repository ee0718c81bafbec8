"""Gradients: the node library, the experiment that runs one model under several back ends and semantics models, and what happened to every gradient."""
