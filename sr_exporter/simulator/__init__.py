"""Stand-ins for OpenSIPS servers that speak Status/Report, for the demo and the tests."""
