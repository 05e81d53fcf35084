"What the site shows above the code of an exported function: its name, a link to its place in the package, what it does. tools/docs.py names it to nbdev as `renderer`."
import re

from nbdev.showdoc import BasicMarkdownRenderer


class Card(BasicMarkdownRenderer):
    "nbdev's card without the signature, for the code with its signature stands right below."
    def _repr_markdown_(self): return re.sub(r"```python\n.*?\n```\n*", "", super()._repr_markdown_(), count=1, flags=re.S)
