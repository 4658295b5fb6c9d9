"""Proof of the tuner: each trouble on live servers, and a day of load in a model of one."""
