"""The plotting library of the page: Vega, Vega-Lite and Vega-Embed, as one script that vl-convert carries with it."""

from __future__ import annotations

SNIPPET = "window.vegaEmbed = vegaEmbed;"
INSTALL = 'the page needs vl-convert: pip install "dim-vs-dit[report]"'
NOTICE = """/*
Vega, Vega-Lite, Vega-Embed and Vega-Tooltip: https://vega.github.io
Copyright (c) 2013-2025 University of Washington Interactive Data Lab and contributors. BSD 3-Clause License:
Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met: 1. Redistributions of source code must retain the above copyright notice, this list of
conditions and the following disclaimer. 2. Redistributions in binary form must reproduce the above copyright notice,
this list of conditions and the following disclaimer in the documentation and/or other materials provided with the
distribution. 3. Neither the name of the copyright holder nor the names of its contributors may be used to endorse or
promote products derived from this software without specific prior written permission.
THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES,
INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY,
WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF
THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
*/
"""


def script() -> str:
    """The library, with its licence. Raises ValueError, with the install command, where vl-convert is not installed."""
    try:
        import vl_convert
    except ImportError as error:
        raise ValueError(INSTALL) from error
    bundle: str = vl_convert.javascript_bundle(SNIPPET)
    closed = bundle.replace("</script", "<\\/script")
    return f"{NOTICE}(function () {{\n{closed}\n}})();"  # its hundreds of names stay its own
