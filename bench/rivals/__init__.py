"""What others would do with the same work: each rival, and this program beside it, in a process of its own.

A side is started as `python -m bench.rivals.NAME FOLDER OUT ...`. It loads the model, answers a question
about a picture of its own (so that whatever is set up at first use is), says that it is ready, and waits for
a line on its standard input. Then its clock starts; when the work is done, it writes a `side.Done`.
"""
