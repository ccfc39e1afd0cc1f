from django.db import models


class Contact(models.Model):
    owner = models.CharField(max_length=64)
    contact = models.CharField(max_length=64)

    class Meta:
        constraints = (models.UniqueConstraint(fields=["owner", "contact"], name="once"),)

    def __str__(self) -> str:
        return f"{self.owner} {self.contact}"
