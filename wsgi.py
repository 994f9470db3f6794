"""What gunicorn serves and where `flask` finds the commands."""

from app import create_app

app = create_app()
