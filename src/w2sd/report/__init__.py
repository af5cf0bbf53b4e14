"""From a store of finished stages to tables, figures and one page. Imports no torch."""
