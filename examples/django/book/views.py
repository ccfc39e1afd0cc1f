from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.views.decorators.http import require_http_methods

from book.models import Contact
from producers.django import record


@require_http_methods(["PUT", "DELETE"])
def one(request: HttpRequest, owner: str, contact: str) -> HttpResponse:
    """Adds or removes one contact; its signal records the change."""
    if request.method == "PUT":
        Contact.objects.update_or_create(owner=owner, contact=contact)
        return HttpResponse(status=204)
    found = Contact.objects.filter(owner=owner, contact=contact).first()
    if found is None:
        return HttpResponseNotFound()
    found.delete()
    return HttpResponse(status=204)


@require_http_methods(["PUT"])
def every(request: HttpRequest, owner: str) -> HttpResponse:
    """Adds many contacts at once. Django sends no signals for `bulk_create`, so the changes are recorded here."""
    names = request.body.decode().split()
    Contact.objects.bulk_create([Contact(owner=owner, contact=name) for name in names], ignore_conflicts=True)
    record([{"owner": owner, "contact": name, "op": "upsert"} for name in names])
    return HttpResponse(status=204)
