"""A page to explore attention with: one file of HTML that needs no network.

page = explorer.Page(model, params)
page.add(image, 'cat.jpg', 'class 7, 98.3%')
page.write('attention.html')
"""

from vit_jax.attention_report.explorer.page import Page

__all__ = ['Page']
