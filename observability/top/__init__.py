"""`python -m observability top`: one server and its workers in a terminal, also after its death."""
