"""What the five services share: events, bus, store, pipeline, runtime."""
