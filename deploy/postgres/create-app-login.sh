#!/bin/sh
# Run once by the image, on an empty volume. `picopay` is what the app logs in as: it owns nothing,
# and `picopay migrate` lets it take on the role picopay_app, which may not rewrite history.
set -eu
psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" << 'END'
\set password `cat /run/secrets/postgres_app_password`
CREATE ROLE picopay LOGIN PASSWORD :'password';
END
