"""What the data sets' own evaluations fix: subsets of defects, limits of false positive rates."""

LOCO_SUBSETS = ("logical_anomalies", "structural_anomalies")
SPRO_LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)  # up to which sPRO is integrated
PRO_LIMIT = 0.3
