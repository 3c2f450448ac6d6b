"""The report page: reads a run, its training and its evaluations, and makes one HTML file of them.

`generation` and `selfinstruct.results` read what is in the folders; `charts` turns numbers into coordinates, `words`
figures into sentences, `tasks` candidates into rows, which `packing` compresses under a budget of bytes; `rendering`
fills in the templates, with every text escaped.
"""
