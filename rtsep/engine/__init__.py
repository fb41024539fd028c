"""The engine: what every hop passes through, and what estimators, phase recoveries and cores say of themselves."""
