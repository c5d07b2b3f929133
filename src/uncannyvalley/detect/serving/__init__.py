"""A detector in production: one module that decides, a policy about what happens then, and a monitor of the stream."""
