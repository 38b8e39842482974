"""Published figures that a report is read beside. None of them is this project's test."""

from boneage_pl.run.published import BEST_PUBLISHED

# Mean absolute error in months, and on what. The RSNA 2017 test set is 200 radiographs.
REFERENCES = (
    {
        "name": "the experiment reproduced here, v2",
        "mae": BEST_PUBLISHED,
        "on": "its own validation images at 500 px, which also chose the epoch; some were trained on too",
        "source": "the published description",
        "same_test": False,
    },
    {
        "name": "RSNA 2017 challenge, winner",
        "mae": 4.265,
        "on": "the challenge's 200 test images",
        "source": "Halabi et al., Radiology 2019",
        "same_test": False,
    },
    {
        "name": "ensemble of the challenge's models",
        "mae": 3.79,
        "on": "the challenge's 200 test images",
        "source": "Pan et al., Radiology: Artificial Intelligence 2019",
        "same_test": False,
    },
    {
        "name": "Deeplasia",
        "mae": 3.87,
        "on": "the challenge's 200 test images",
        "source": "Rassmann et al., Pediatric Radiology 2023",
        "same_test": False,
    },
    {
        "name": "human raters",
        "mae": "4.8 to 7.0",
        "on": "the challenge's 200 test images",
        "source": "the range reported for single readers",
        "same_test": False,
    },
)
