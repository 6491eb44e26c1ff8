"""An example plug-in: a similarity, a mask rule, a target, a fusion module and a kind of field, each one file."""
