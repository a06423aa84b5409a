"""How Sphinx builds the guide; `make docs` calls it."""

import chainerlp

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = 'chainerlp'
version = chainerlp.__version__
extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build', 'study/template.md']
myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 3
napoleon_use_ivar = True
autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
html_theme = 'furo'
html_title = 'chainerlp'
html_copy_source = html_show_copyright = False
html_math_renderer = 'mathml'


def setup(app):
    """Has equations written as MathML, which browsers show without a script from elsewhere."""

    def inline(translator, node):
        translator.body.append(tex2mathml(node.astext(), as_block=False))
        raise nodes.SkipNode

    def block(translator, node):
        mathml = tex2mathml(node.astext(), as_block=True)
        translator.body.append(f'<div style="overflow-x: auto">{mathml}</div>')
        raise nodes.SkipNode

    app.add_html_math_renderer('mathml', (inline, None), (block, None))
