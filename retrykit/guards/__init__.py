"""Budget, pause, circuit breaker and the moment for hedging: one idea each, and no I/O."""
