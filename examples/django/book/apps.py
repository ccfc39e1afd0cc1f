from django.apps import AppConfig


class BookConfig(AppConfig):
    name = "book"

    def ready(self) -> None:
        from book.models import Contact
        from producers.django import sync_contacts

        sync_contacts(Contact, owner="owner", contact="contact")
