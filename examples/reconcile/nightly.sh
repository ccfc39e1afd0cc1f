#!/bin/sh
# Makes the endpoint match the table `contact` of DATABASE_URL. From cron, once a night:
#   0 3 * * *  DATABASE_URL=postgresql+psycopg://app@db/app CONTACT_SYNC_REDIS_URL=redis://redis:6379/0 /opt/app/nightly.sh
#
# It deletes what the table no longer has only if workers run with CONTACT_SYNC_LEDGER_SECONDS=forever, and nothing if
# that were more than a tenth of all contacts. Exit status 1: rows were rejected, or nothing was sent; the lines say why.
set -eu

exec contact-sync reconcile "$DATABASE_URL" \
    --query 'SELECT owner, contact FROM contact' \
    --rejects "${REJECTS:-/var/tmp/contact-sync-rejects.jsonl}" \
    --wait "${WAIT_SECONDS:-600}"
