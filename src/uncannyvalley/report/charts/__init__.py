"""What the page draws in the browser: charts as Vega-Lite specifications, and the scripts that fill them."""
