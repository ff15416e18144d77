"""What retries do, told to OpenTelemetry and to Prometheus: each is a listener in a file of its own."""
