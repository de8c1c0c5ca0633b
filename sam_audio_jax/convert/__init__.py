"""From the name of a checkpoint to networks with their parameters, and back to files.

Opening a name goes through these files in this order; each network has its config, the names of
its tensors and nothing else in one file:

    load.py                      what the name means: a checkpoint of a run or a model folder
    folder.py, model_files.py    a model folder: its JSON files are read, its tensor files opened
    training_run.py              a run: its config is read, then the averaged weights (Orbax)
    codec.py t5.py separator.py  for each network its config and the table of its tensors
    names.py                     the table against the tensors: every misfit, else our layout
    transfer.py, tensors.py      tensor by tensor from the file into the shards of the devices

`encoders.py` does the same for an encoder alone (pe_a_frame.py, peav.py, vision.py), cnn14.py for a
scoring network. Writing goes from `Table.stored` to `write_state`, one tensor at a time.
"""
