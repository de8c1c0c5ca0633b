"""A page in the browser to try a model on: `sam-audio demo` (docs/demo.md).

app.py answers requests, guard.py refuses those that come from elsewhere. A recording is uploaded
(uploads.py), checked and drawn (drawing.py) and kept under a random name (store.py); what to
separate from it (job_request.py) waits in a queue (jobs.py), from which one thread takes one job
after the other (separating.py). limits.py has the bounds of all this. The page itself is in page/:
plain HTML, CSS and modules of JavaScript, which no tool has to build.
"""
