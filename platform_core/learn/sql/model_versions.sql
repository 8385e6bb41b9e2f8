-- model_versions: every model version at its latest event.
--
-- reads    out__model
-- returns  all columns of out__model, one row per model and version, in that order

SELECT *
FROM out__model
QUALIFY row_number() OVER (PARTITION BY model, version ORDER BY epoch DESC) = 1
ORDER BY model, version
