"""What every hop passes through besides an estimator and a phase recovery: analysis and output."""
