"""Video files: frames at chosen times, masks of an object, a new sound track.

The only room that knows video formats. Frames are streamed, so the memory that a video file needs
does not grow with its length.
"""
