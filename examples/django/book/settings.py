import os

SECRET_KEY = os.environ.get("SECRET_KEY", "for trying it only")
ALLOWED_HOSTS = ["localhost", "testserver"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["book.apps.BookConfig", "producers.django"]
ROOT_URLCONF = "book.urls"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("DATABASE", "book.db"),
        "ATOMIC_REQUESTS": True,  # a request is a transaction, with the outbox in it
    }
}
CONTACT_SYNC = {"SOURCE": "book"}  # and CONTACT_SYNC_REDIS_URL in the environment
