"""A page that publishes."""

from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_POST

import gpulse


@require_POST
@login_required
@transaction.atomic
def say(request: HttpRequest, slug: str) -> HttpResponse:
    gpulse.publish(f"room:{slug}", {"user": request.user.username, "text": request.POST["text"]})
    return HttpResponse(status=204)
