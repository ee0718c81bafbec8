"""Views: functions from data to text, HTML and pictures. With `magics`, the only part that knows IPython."""
